-- Webhooks that are due, held for a while by the caller, which delivers them. Tenants take turns, one webhook each: what it costs grows with
-- the tenants that have some due, not with how many they have.
-- ARGV: 1 ms they are held, 2 how many at the most, 3 how many of one tenant at the most, 4 how many of one tenant once the caller
--       calls more than ARGV[5], 5 that, 6... a tenant for each that the caller is calling already
-- Returns {moment, tries so far, until when it is held, record as a flat list}...; of one that is not here id and tenant alone
local MOVED, SOON_MS = 200, 200
local limit, most, few, busy = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local at = now_ms()
local held = integer(at + tonumber(ARGV[1]))
local calling, total = {}, #ARGV - 5
for i = 6, #ARGV do calling[ARGV[i]] = (calling[ARGV[i]] or 0) + 1 end

-- What a process of the release before noted, and is not calling itself.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEY.webhooks_before, '-inf', integer(at), 'LIMIT', 0, MOVED)) do
  local tenant = redis.call('HGET', KEY.generation .. string.match(member, '^(.+)/%a+$'), 'tenant')
  if tenant then webhook_at(tenant, member, at) end
  redis.call('ZREM', KEY.webhooks_before, member)
end

local found = {}

-- The next of a tenant that is to be called; false when it has none. Those that are none any more are forgotten.
local function take(tenant)
  local queue = KEY.webhooks .. tenant
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', queue, '-inf', integer(at), 'LIMIT', 0, 16)) do
    local id, moment = string.match(member, '^(.+)/(%a+)$')
    local key = (moment == 'batch' and KEY.batch or KEY.generation) .. id
    local moments, before, completed, tried = unpack(
      redis.call('HMGET', key, 'webhook_moments', 'callback_moments', 'completed_ms', 'tries_start'))
    if redis.call('EXISTS', key) == 0 then
      -- It is archived, or gone: its delivery finds out.
      redis.call('ZADD', queue, held, member)
      found[#found + 1] = { moment, 0, held, { 'id', id, 'tenant', tenant } }
      return true
    elseif not (moments or before) or (moment ~= 'start' and not completed) then
      redis.call('ZREM', queue, member)
    elseif moment == 'completed' and not tried and redis.call('ZSCORE', queue, id .. '/start') then
      -- The end is not told before the start was, be it without success: `called` has it told then.
      redis.call('ZADD', queue, integer(math.max(at + SOON_MS, tonumber(redis.call('ZSCORE', queue, id .. '/start')))), member)
    else
      redis.call('ZADD', queue, held, member)
      local record = redis.call('HGETALL', key)
      found[#found + 1] = { moment, tonumber(named(record)['tries_' .. moment] or 0), held, record }
      return true
    end
  end
  return false
end

local turns = redis.call('ZRANGEBYSCORE', KEY.webhook_turns, '-inf', integer(at), 'LIMIT', 0, 4 * limit)
local looked, took = {}, true
while took and #found < limit do
  took = false
  for _, tenant in ipairs(turns) do
    -- A tenant whose receivers are slow leaves room for others.
    local cap = total + #found < busy and most or few
    if #found < limit and (calling[tenant] or 0) < cap then
      looked[tenant] = true
      if take(tenant) then
        calling[tenant] = (calling[tenant] or 0) + 1
        took = true
      end
    end
  end
end
for _, tenant in ipairs(turns) do
  if looked[tenant] then
    webhook_turn(tenant)
    local turn = redis.call('ZSCORE', KEY.webhook_turns, tenant)
    -- Behind those who wait, be it since this millisecond.
    if turn and tonumber(turn) <= at then redis.call('ZADD', KEY.webhook_turns, integer(at + 1), tenant) end
  elseif #turns == 4 * limit and (calling[tenant] or 0) >= (total + #found < busy and most or few) then
    -- It is called as often as it may be, and must not hide those behind it.
    redis.call('ZADD', KEY.webhook_turns, integer(at + 1), tenant)
  end
end
return found
