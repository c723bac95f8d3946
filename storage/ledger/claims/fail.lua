-- processing -> failed, or -> queued after a rest when it may be tried again and attempts are left; or, when it took its worker
-- down, as `recover` does it: counted as a loss, and parked when there were too many.
-- ARGV: 1 id, 2 token, 3 code, 4 message, 5 ms to rest before another attempt or -1 for none, 6 attempts at the most,
--       7 details of the error as JSON or '', 8 target, 9 the sample as JSON or '', 10 losses of a worker at the most, or ''
-- Returns 'failed' | 'queued' | 'lost'
local record = record_of(ARGV[1])
if record.status ~= 'processing' or record.token ~= ARGV[2] then return 'lost' end
if ARGV[9] ~= '' then note_sample(ARGV[8], ARGV[9]) end
local rest_ms = tonumber(ARGV[5])
local message, spent = ARGV[4], false
if ARGV[10] ~= '' then
  local losses = redis.call('HINCRBY', KEY.generation .. record.id, 'losses', 1)
  spent = losses >= tonumber(ARGV[10])
  message = message .. ' (' .. losses .. (losses == 1 and ' time)' or ' times)')
  -- Nobody is to wait for what it had loaded.
  redis.call('DEL', KEY.alive .. record.worker)
end
if rest_ms >= 0 and not spent and tonumber(record.attempts) < tonumber(ARGV[6]) then
  requeue(record, rest_ms)
  return 'queued'
end
local at = now_ms()
if ARGV[7] ~= '' then redis.call('HSET', KEY.generation .. record.id, 'error_details', ARGV[7]) end
settle_failed(record, at, ARGV[3], message)
if rest_ms >= 0 then park(record, at) end
return 'failed'
