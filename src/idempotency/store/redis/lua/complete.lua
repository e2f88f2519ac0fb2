local owner, owners_fence, retention, outcome = ARGV[1], ARGV[2], tonumber(ARGV[5]), ARGV[6]

if not state then
    -- Given out by this store, but the record may have been removed since.
    fence = tonumber(owners_fence)
    if fence > high and fence < 2 ^ 53 then high = fence end
    claim_id, attempt, fingerprint = owner, tonumber(ARGV[3]), ARGV[4]
elseif claim_id ~= owner or state == 'x' then
    return 'lost'
elseif state == 'c' then
    return 'already applied'
end
close('c', now + retention, 0, outcome)
return 'applied'
