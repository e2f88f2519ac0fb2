if state ~= 'p' or claim_id ~= ARGV[1] then return {'lost'} end
local renewed = now + tonumber(ARGV[2])
redis.call('HSET', key, 'l', whole(renewed))
if ARGV[3] then redis.call('HSET', key, 'n', ARGV[3]) end
if expires_at then expires(renewed + expires_at - lease_until) end
return {'renewed'}
