if state ~= 'p' or now < lease_until then return {'not interrupted'} end
if not ARGV[1] then
    remove()
else
    expires_at = now + tonumber(ARGV[3])
    call('HSET', key, 's', 'c', 'i', ARGV[1], 'o', ARGV[2], 'e', expires_at)
    call('HDEL', key, 'l', 'n')
    call('PEXPIREAT', key, expires_at + day)
end
return {'resolved'}
