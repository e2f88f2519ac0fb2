local how, nobody, outcome, retention = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local may
if how == 'corrected' then
    may = state == 'c' and claim_id == nobody
else
    may = state == 'p' and now >= ends
end
if not may then return 'not interrupted' end
if how == 'not executed' then
    close('r', now, 0, '')
else
    claim_id = nobody
    close('c', now + retention, 0, outcome)
end
return 'resolved'
