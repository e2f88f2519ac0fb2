-- There is something. Where it is not to be taken, nothing is written.
local _, retention, asking, request, _, _, bytes = struct.unpack('<c1dc16c33I4BI4', ARGV[1])
local again = false
if state == 'x' then
    return 'cancelled'
elseif state and fingerprint ~= request then
    return 'mismatch'
elseif state == 'c' then
    return {'completed', attempt, call('GETRANGE', key, '95', '-1')}
elseif state then
    again = claim_id == asking
    if not again and now < ends then return {'in progress', ends - now} end
end

