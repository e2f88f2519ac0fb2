-- Times are milliseconds since 1970, and every number is exact: below 2^53.
local key, call = KEYS[1], redis.call
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

