local asking, request, lease, retention = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local origin = ARGV[5]

local note = false
if not state then
    if stored then call('HDEL', key, 'o', 'n') end
    attempt, fence = 1, false
elseif state == 'x' then
    return {'cancelled'}
elseif fingerprint ~= request then
    return {'mismatch'}
elseif state == 'c' then
    return {'completed', attempt, call('HGET', key, 'o')}
else
    note = call('HGET', key, 'n')
    if claim_id ~= asking then
        if now < lease_until then return {'in progress', lease_until - now} end
        -- Whoever ran it, or whoever asks, wants it at most once.
        if not (retention and expires_at) then return {'unknown', attempt, note} end
        attempt, fence = math.min(attempt + 1, 4294967295), false
    end
end
if not fence then
    high = math.max(high + 1, micros)
    fence = high
end
lease_until = now + lease
if retention then
    expires_at = lease_until + retention
    call('HSET', key, 's', 'p', 'h', high, 'i', asking, 'f', fence, 'a', attempt, 'q', request, 'l', lease_until,
        'w', origin, 'e', expires_at)
    call('PEXPIREAT', key, expires_at + day)
else
    call('HSET', key, 's', 'p', 'h', high, 'i', asking, 'f', fence, 'a', attempt, 'q', request, 'l', lease_until,
        'w', origin)
    call('HDEL', key, 'e')
    call('PERSIST', key)
end
return {'owned', fence, attempt, note}
