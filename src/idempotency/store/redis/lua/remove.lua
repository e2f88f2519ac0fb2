
local function remove()
    call('DEL', key)
    call('HSET', key, 'h', high)
    call('PEXPIREAT', key, now + day)
end

