-- With an argument, only what is interrupted counts.
local interrupted = state == 'p' and now >= lease_until
if not state or ARGV[1] and not interrupted then return {'absent'} end
local values = call('HMGET', key, 'o', 'n', 'w')
return {state, now, claim_id, fence, attempt, fingerprint, held[7], held[8], values[1], values[2], values[3]}
