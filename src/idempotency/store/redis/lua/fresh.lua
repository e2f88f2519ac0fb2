-- A claim of a key of which there is nothing: no more than the clock and one SET, which fails where there is something.
--
-- ARGV: the record from its state on, as `record.lua` has it, the lease, and how long the server keeps it all; none for
-- ever.
local claimed = 'sfi1' .. struct.pack('<ddd', micros, micros, now + ARGV[2]) .. ARGV[1]
local set
if ARGV[3] then
    set = call('SET', key, claimed, 'NX', 'PX', ARGV[3])
else
    set = call('SET', key, claimed, 'NX')
end
if set then return micros end

