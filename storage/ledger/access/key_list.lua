-- API keys, and forgets those that have expired.
-- ARGV: 1 tenant, or '' for everybody's
-- Returns {{name, value...}...}
local found = {}
for id, tenant in pairs(named(redis.call('HGETALL', KEY.api_keys))) do
  local record = redis.call('HGETALL', KEY.api_key .. id)
  if #record == 0 then
    redis.call('HDEL', KEY.api_keys, id)
  elseif ARGV[1] == '' or ARGV[1] == tenant then
    found[#found + 1] = record
  end
end
return found
