-- Everyone who announced themselves lately.
-- Returns {name, facts as JSON...}
local found = {}
for _, name in ipairs(redis.call('SMEMBERS', KEY.fleet)) do
  local facts = redis.call('GET', KEY.alive .. name)
  if facts then
    found[#found + 1], found[#found + 2] = name, facts
  else
    redis.call('SREM', KEY.fleet, name)
  end
end
return found
