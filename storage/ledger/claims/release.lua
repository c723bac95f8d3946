-- processing -> queued without blame: a worker that is being stopped hands its work back, and the attempt is not counted. So does
-- one that cannot read the record; it rests then, longer each time, until after so many times it fails.
-- ARGV: 1 id, 2 token, 3 how often it may be unreadable or '', 4 ms to rest the first time
-- Returns 'queued' | 'failed' | 'lost'
local record = record_of(ARGV[1])
if record.status ~= 'processing' or record.token ~= ARGV[2] then return 'lost' end
record.attempts = redis.call('HINCRBY', KEY.generation .. record.id, 'attempts', -1)
local rest_ms = 0
if ARGV[3] ~= '' then
  local times = redis.call('HINCRBY', KEY.generation .. record.id, 'unreadable', 1)
  if times >= tonumber(ARGV[3]) then
    local at = now_ms()
    settle_failed(record, at, 'internal', 'No worker can read what was recorded of it')
    park(record, at)
    return 'failed'
  end
  rest_ms = tonumber(ARGV[4]) * 2 ^ math.min(times - 1, 5)
end
requeue(record, rest_ms)
return 'queued'
