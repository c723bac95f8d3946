-- What has rested long enough is pending again; what has waited too long, or is past its deadline, is failed.
-- ARGV: 1 most of each
-- Returns {id, 'pending' | 'expired', ...}
local at, moved = now_ms(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.due, '-inf', integer(at), 'LIMIT', 0, ARGV[1])) do
  redis.call('ZREM', KEY.due, id)
  local record = record_of(id)
  if record.status == 'queued' then
    enqueue(record, true)
    moved[#moved + 1] = id
    moved[#moved + 1] = 'pending'
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.deadlines, '-inf', integer(at), 'LIMIT', 0, ARGV[1])) do
  redis.call('ZREM', KEY.deadlines, id)
  local record = record_of(id)
  if record.status == 'queued' or record.status == 'processing' then
    stop(record)
    local seconds = math.floor((at - tonumber(record.created_ms)) / 1000)
    if record.deadline_ms and tonumber(record.deadline_ms) <= at then
      settle_failed(record, at, 'deadline_exceeded', 'It was not over within the ' .. seconds .. ' seconds it was given')
    else
      settle_failed(record, at, 'expired_in_queue', 'No worker was free for it within ' .. seconds .. ' seconds')
    end
    moved[#moved + 1] = id
    moved[#moved + 1] = 'expired'
  end
end
return moved
