local function unknown() return {'cancelled unknown', attempt, redis.call('HGET', key, 'n')} end

if state == 'c' then
    return {'done', redis.call('HGET', key, 'o')}
elseif state == 'p' and now < lease_until then
    return {'in progress', whole(lease_until - now)}
elseif state == 'x' then
    if attempt then return unknown() else return {'cancelled'} end
elseif state == 'p' then
    redis.call('HSET', key, 's', 'x')
    redis.call('HDEL', key, 'i', 'q', 'l')
    never_expires()
    return unknown()
end
redis.call('DEL', key)
redis.call('HSET', key, 's', 'x', 'h', whole(high), 'f', whole(high))
return {'cancelled'}
