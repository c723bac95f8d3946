-- Takes edits of a browser token's, all or none.
-- ARGV: 1 token, 2 how many
-- Returns how many it has left after that, -1 where they do not suffice
local name = KEY.token .. ARGV[1]
local left = tonumber(redis.call('HGET', name, 'left') or 0) - tonumber(ARGV[2])
if left < 0 then return -1 end
redis.call('HSET', name, 'left', left)
return left
