local note = false
if state then
    note = checkpoint()
    -- Whoever ran it, or whoever asks, wants it at most once.
    if not again and (retention == forever or keep == forever) then return {'unknown', attempt, note} end
end
if not again then
    attempt = state and math.min(attempt + 1, 4294967295) or 1
    high = math.max(high + 1, micros)
    fence = high
end
state, ends, keep = 'p', now + ARGV[2], retention
claim_id, fingerprint, noted, origin = asking, request, note and 1 or 0, bytes
write(ARGV[1]:sub(68) .. (note or ''))
return {'owned', fence, attempt, note}
