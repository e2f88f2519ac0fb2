local function unknown() return {'cancelled unknown', attempt, call('HGET', key, 'n')} end

if state == 'c' then
    return {'done', call('HGET', key, 'o')}
elseif state == 'p' and now < lease_until then
    return {'in progress', lease_until - now}
elseif state == 'x' then
    if attempt then return unknown() else return {'cancelled'} end
elseif state == 'p' then
    call('HSET', key, 's', 'x')
    call('HDEL', key, 'i', 'q', 'l', 'e', 'w')
    call('PERSIST', key)
    return unknown()
end
call('DEL', key)
call('HSET', key, 's', 'x', 'h', high, 'f', high)
return {'cancelled'}
