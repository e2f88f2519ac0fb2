if not state then return {'absent'} end
local values = redis.call('HMGET', key, 'o', 'n')
return {state, whole(now), claim_id, fence, attempt, fingerprint, held[7], held[8], values[1], values[2]}
