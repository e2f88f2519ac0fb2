-- ARGV: claim id, fence, attempt and fingerprint of the owner, how long the outcome counts, how long the server keeps it,
-- and the outcome.
if not state then
    -- Given out by this store, but the record may have been removed since.
    fence = tonumber(ARGV[2])
    if fence > high and fence < 2 ^ 53 then high = fence end
    claim_id, attempt, fingerprint = ARGV[1], tonumber(ARGV[3]), ARGV[4]
elseif claim_id ~= ARGV[1] or state == 'x' then
    return 'lost'
elseif state == 'c' then
    return 'already applied'
end
local record = struct.pack(format, magic, high, fence, now + ARGV[5], 'c', 0, claim_id, fingerprint, attempt, 0, 0)
call('SET', key, record .. ARGV[7], 'PX', ARGV[6])
return 'applied'
