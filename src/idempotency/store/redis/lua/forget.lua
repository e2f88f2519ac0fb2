if not state then return {'absent'} end
if state == 'p' and now < lease_until then return {'in progress'} end
remove()
return {'forgotten'}
