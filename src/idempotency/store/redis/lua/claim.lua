-- There is something.
local _, retention, asking, request, _, _, bytes = struct.unpack('<c1dc16c33I4BI4', ARGV[1])

local note = false
local again = false
if not state then
    attempt = 1
elseif state == 'x' then
    return 'cancelled'
elseif fingerprint ~= request then
    return 'mismatch'
elseif state == 'c' then
    return {'completed', attempt, rest(0)}
else
    again = claim_id == asking
    if not again and now < ends then return {'in progress', ends - now} end
    note = checkpoint()
    if not again then
        -- Whoever ran it, or whoever asks, wants it at most once.
        if retention == forever or keep == forever then return {'unknown', attempt, note} end
        attempt = math.min(attempt + 1, 4294967295)
    end
end
if not again then
    high = math.max(high + 1, micros)
    fence = high
end
state, ends, keep = 'p', now + ARGV[2], retention
claim_id, fingerprint, noted, origin = asking, request, note and 1 or 0, bytes
write(ARGV[1]:sub(68) .. (note or ''))
return {'owned', fence, attempt, note}
