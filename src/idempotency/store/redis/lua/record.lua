-- The record of KEYS[1] as it counts now. Times are milliseconds since 1970, and every number is exact: below 2^53.
--
-- s  state: p in progress, c completed, x cancelled; none where the record was removed, and only its fence is kept
-- h  the largest fence that was given out
-- i f a q  owner: claim id, fence, attempt, fingerprint
-- l  end of the lease      e  expiry, none for never
-- o  outcome               n  checkpoint     w  whose it is, of one in progress
local key, call = KEYS[1], redis.call
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local held = call('HMGET', key, 's', 'h', 'i', 'f', 'a', 'q', 'l', 'e')
local stored, claim_id, fence, attempt, fingerprint = held[1], held[3], held[4], held[5], held[6]
local high, lease_until, expires_at = tonumber(held[2] or 0), tonumber(held[7] or 0), tonumber(held[8] or nil)

-- Expiry decides here; the server removes the hash a day later, so that the fence grows although a clock steps back.
local state = stored
if expires_at and now >= expires_at then state = false end
local day = 86400000
