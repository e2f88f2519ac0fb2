-- ARGV[2] says whether nothing has happened: then the first attempt frees the key.
local release = ARGV[2] == 'release'
if release and not state then return {'released'} end
if state ~= 'p' or claim_id ~= ARGV[1] then return {'lost'} end
if release and attempt == '1' then
    remove()
    return {'released'}
end
if now < lease_until then
    call('HSET', key, 'l', now)
    if expires_at then
        expires_at = now + expires_at - lease_until
        call('HSET', key, 'e', expires_at)
        call('PEXPIREAT', key, expires_at + day)
    end
end
return {'interrupted'}
