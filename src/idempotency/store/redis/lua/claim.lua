local asking, request, lease, retention = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local once = ARGV[4] == ''

local function own(attempt, fence, note)
    local lease_until = now + lease
    redis.call('HSET', key, 's', 'p', 'h', whole(high), 'i', asking, 'f', fence, 'a', attempt, 'q', request,
        'l', whole(lease_until))
    if once then never_expires() else expires(lease_until + retention) end
    return {'owned', fence, attempt, note}
end

local function next_fence()
    high = math.max(high + 1, micros)
    return whole(high)
end

if not state then
    if stored then redis.call('HDEL', key, 'o', 'n') end
    return own('1', next_fence(), false)
elseif state == 'x' then
    return {'cancelled'}
elseif fingerprint ~= request then
    return {'mismatch'}
elseif state == 'c' then
    return {'completed', attempt, redis.call('HGET', key, 'o')}
end
local note = redis.call('HGET', key, 'n')
if claim_id == asking then
    return own(attempt, fence, note)
elseif now < lease_until then
    return {'in progress', whole(lease_until - now)}
elseif once or not expires_at then
    return {'unknown', attempt, note}
end
return own(whole(math.min(attempt + 1, 4294967295)), next_fence(), note)
