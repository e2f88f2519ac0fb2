local owner, owners_fence, retention, outcome = ARGV[1], ARGV[2], tonumber(ARGV[5]), ARGV[6]

if not state then
    -- Given out by this store, but the hash may have been removed since.
    local given = tonumber(owners_fence)
    if given > high and given < 2 ^ 53 then high = given end
    call('HSET', key, 'h', high, 'i', owner, 'f', owners_fence, 'a', ARGV[3], 'q', ARGV[4])
elseif claim_id ~= owner or state == 'x' then
    return {'lost'}
elseif state == 'c' then
    return {'already applied'}
end
call('HSET', key, 's', 'c', 'o', outcome, 'e', now + retention)
call('HDEL', key, 'l', 'n', 'w')
call('PEXPIREAT', key, now + retention + day)
return {'applied'}
