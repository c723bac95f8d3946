-- Webhooks that are due, held for a while by whoever calls them now.
-- ARGV: 1 ms they are held, 2 how many at the most, 3 how many of one tenant at the most, 4... a tenant for each that the caller
--       is calling already
-- Returns {moment, tries so far, until when it is held, record as a flat list}...
local PASSED_MS = 1000
local at = now_ms()
local held = integer(at + tonumber(ARGV[1]))
local calling = {}
for i = 4, #ARGV do calling[ARGV[i]] = (calling[ARGV[i]] or 0) + 1 end
local found = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEY.webhooks, '-inf', integer(at), 'LIMIT', 0, 8 * tonumber(ARGV[2]))) do
  if #found >= tonumber(ARGV[2]) then break end
  local id, moment = string.match(member, '^(.+)/(%a+)$')
  local key = KEY.generation .. id
  local tenant, moments, before, completed = unpack(
    redis.call('HMGET', key, 'tenant', 'webhook_moments', 'callback_moments', 'completed_ms'))
  if not (moments or before) or (moment == 'completed' and not completed) then
    redis.call('ZREM', KEY.webhooks, member)
  elseif (calling[tenant] or 0) >= tonumber(ARGV[3]) then
    -- Behind those of others, who do not wait for this tenant's slow servers.
    redis.call('ZADD', KEY.webhooks, integer(at + PASSED_MS), member)
  else
    calling[tenant] = (calling[tenant] or 0) + 1
    redis.call('ZADD', KEY.webhooks, held, member)
    local record = redis.call('HGETALL', key)
    found[#found + 1] = { moment, tonumber(named(record)['tries_' .. moment] or 0), held, record }
  end
end
return found
