if state ~= 'p' or claim_id ~= ARGV[1] then return {'lost'} end
local renewed = now + tonumber(ARGV[2])
call('HSET', key, 'l', renewed)
if ARGV[3] then call('HSET', key, 'n', ARGV[3]) end
if expires_at then
    expires_at = renewed + expires_at - lease_until
    call('HSET', key, 'e', expires_at)
    call('PEXPIREAT', key, expires_at + day)
end
return {'renewed'}
