-- The record of the key as it counts now: one string, packed little endian.
--
--  at  bytes
--   0   4  'sfi1', this format
--   4   8  high: the largest fence that was given out
--  12   8  fence, of the owner
--  20   8  ends: the lease, or what was completed or removed
--  28   1  state: p in progress, c completed, x cancelled, r removed: then only `high` counts
--  29   8  keep: how long it counts after it ends; -1 for ever
--  37  16  claim id
--  53  33  fingerprint
--  86   4  attempt, 0 of a cancelled one for none
--  90   1  noted: whether there is a checkpoint
--  91   4  length of the origin, 0 unless in progress
--  95      the origin, then the checkpoint, or the outcome
local format = '<c4dddc1dc16c33I4BI4'
local held = redis.pcall('GETRANGE', key, '0', '94')
-- A key of another type: its error is the answer. Raised it would lose its code up to Redis 6.
if type(held) == 'table' then return held end

local magic, high, fence, ends, state, keep, claim_id, fingerprint, attempt, noted, origin
if held == '' then
    if call('EXISTS', key) == 1 then return 'foreign' end
    magic, high, fence, ends, state, keep, attempt, noted, origin = 'sfi1', 0, 0, 0, 'r', 0, 0, 0, 0
    claim_id, fingerprint = ('\0'):rep(16), ('\0'):rep(33)
elseif #held == 95 then
    magic, high, fence, ends, state, keep, claim_id, fingerprint, attempt, noted, origin =
        struct.unpack(format, held)
end
if magic ~= 'sfi1' or not string.find('pcxr', state, 1, true) then return 'foreign' end

-- Expiry decides here; the server removes the string a day later, so that the fence grows although a clock steps back.
local day = 86400000
local forever = -1
if state == 'r' or keep ~= forever and now >= ends + keep then state = false end

