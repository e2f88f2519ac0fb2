-- What stands behind the header, from this byte of it on.
local function rest(from) return call('GETRANGE', key, 95 + from, '-1') end

local function checkpoint() return noted == 1 and rest(origin) end

-- Writes what the variables say, and what stands behind them.
local function write(behind)
    local record = struct.pack(format, magic, high, fence, ends, state, keep, claim_id, fingerprint, attempt, noted,
        origin) .. behind
    if keep == forever then
        call('SET', key, record)
    else
        call('SET', key, record, 'PX', ends + keep + day - now)
    end
end

-- The same, of a record that has nothing behind the header but this.
local function close(as, closing, kept, behind)
    state, ends, keep, noted, origin = as, closing, kept, 0, 0
    write(behind)
end

