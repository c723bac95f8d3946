-- Notes which generations came of a browser token, which may see them from then on.
-- ARGV: 1 token, 2... ids
local name = KEY.token .. ARGV[1]
if redis.call('EXISTS', name) == 0 then return 0 end
for i = 2, #ARGV do redis.call('HSET', name, 'id:' .. ARGV[i], 1) end
return 1
