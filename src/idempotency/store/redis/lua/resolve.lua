if state ~= 'p' or now < lease_until then return {'not interrupted'} end
if not ARGV[1] then
    remove()
else
    redis.call('HSET', key, 's', 'c', 'i', ARGV[1], 'o', ARGV[2])
    redis.call('HDEL', key, 'l', 'n')
    expires(now + tonumber(ARGV[3]))
end
return {'resolved'}
