-- ARGV[2] says whether nothing has happened: then the first attempt frees the key.
local release = ARGV[2] == 'release'
if release and not state then return 'released' end
if state ~= 'p' or claim_id ~= ARGV[1] then return 'lost' end
if release and attempt == 1 then
    close('r', now, 0, '')
    return 'released'
end
if now < ends then
    ends = now
    write(rest(0))
end
return 'interrupted'
