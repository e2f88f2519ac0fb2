-- With an argument, only what is interrupted counts.
local interrupted = state == 'p' and now >= ends
if not state or ARGV[1] and not interrupted then return 'absent' end
return {'found', now, held, call('GETRANGE', key, '95', '-1')}
