if state == 'c' then
    return {'done', rest(0)}
elseif state == 'p' and now < ends then
    return {'in progress', ends - now}
elseif state == 'x' then
    if attempt > 0 then return {'cancelled unknown', attempt, checkpoint()} end
    return 'cancelled'
elseif not state then
    fence, attempt = high, 0
    close('x', 0, forever, '')
    return 'cancelled'
end
local note = checkpoint()
state, ends, keep, origin = 'x', 0, forever, 0
write(note or '')
return {'cancelled unknown', attempt, note}
