if not state then return 'absent' end
if state == 'p' and now < ends then return 'in progress' end
close('r', now, 0, '')
return 'forgotten'
