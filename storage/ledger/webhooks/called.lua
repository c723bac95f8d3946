-- A webhook was called: it is done with, or due again later. What became due anew meanwhile stays as it is.
-- ARGV: 1 id, 2 moment, 3 ms until it is due again or -1 for never, 4 what the receiver answered, for display,
--       5 until when it was held, 6 ms that the call took, 7 tenant
-- Returns 1, or 0 when it was held no more
local LOGGED = 1000
local member, key = ARGV[1] .. '/' .. ARGV[2], (ARGV[2] == 'batch' and KEY.batch or KEY.generation) .. ARGV[1]
local again, tenant = tonumber(ARGV[3]), ARGV[7]
local held = redis.call('ZSCORE', KEY.webhooks .. tenant, member)
local is_current = held and integer(held) == ARGV[5]
-- It may have been erased meanwhile.
if redis.call('EXISTS', key) == 1 then
  local try = is_current and redis.call('HINCRBY', key, 'tries_' .. ARGV[2], 1) or 0
  if is_current then redis.call('HSET', key, 'called_' .. ARGV[2], ARGV[4]) end
  if ARGV[2] == 'start' and again < 0 then redis.call('HSET', key, 'told_start', 1) end
  local next_ms = is_current and again >= 0 and integer(now_ms() + again) or ''
  redis.call('XADD', KEY.webhook_log .. tenant, 'MAXLEN', '~', LOGGED, '*', 'id', ARGV[1], 'moment', ARGV[2], 'try', try,
    'outcome', ARGV[4], 'took_ms', ARGV[6], 'next_ms', next_ms)
  redis.call('EXPIRE', KEY.webhook_log .. tenant, LIFE.record)
end
if not is_current then return 0 end
if ARGV[2] == 'start' and redis.call('HGET', key, 'tries_start') == '1' and redis.call('ZSCORE', KEY.webhooks .. tenant, ARGV[1] .. '/completed') then
  -- It waited for this.
  webhook_at(tenant, ARGV[1] .. '/completed', now_ms())
end
if again < 0 then
  webhook_gone(tenant, member)
else
  webhook_at(tenant, member, now_ms() + again)
end
return 1
