-- ARGV[2] says whether nothing has happened: then the first attempt frees the key.
local release = ARGV[2] == 'release'
if release and not state then return {'released'} end
if state ~= 'p' or claim_id ~= ARGV[1] then return {'lost'} end
if release and attempt == '1' then
    remove()
    return {'released'}
end
if now < lease_until then
    redis.call('HSET', key, 'l', whole(now))
    if expires_at then expires(now + expires_at - lease_until) end
end
return {'interrupted'}
