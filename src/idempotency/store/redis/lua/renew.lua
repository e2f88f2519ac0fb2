if state ~= 'p' or claim_id ~= ARGV[1] then return 'lost' end
local behind = rest(0)
if ARGV[3] then
    behind = behind:sub(1, origin) .. ARGV[3]
    noted = 1
end
ends = now + ARGV[2]
write(behind)
return 'renewed'
