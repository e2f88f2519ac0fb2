local how, nobody, outcome, retention = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local may
if how == 'corrected' then
    may = state == 'c' and claim_id == nobody
else
    may = state == 'p' and now >= lease_until
end
if not may then return {'not interrupted'} end
if how == 'not executed' then
    remove()
else
    expires_at = now + retention
    call('HSET', key, 's', 'c', 'i', nobody, 'o', outcome, 'e', expires_at)
    call('HDEL', key, 'l', 'n', 'w')
    call('PEXPIREAT', key, expires_at + day)
end
return {'resolved'}
