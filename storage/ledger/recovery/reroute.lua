-- Moves what waits for workers that are not there to the next queue it may wait on that has some.
-- ARGV: 1 most, 2 how many queues follow that were served lately, 3... those, then the queues that are served just now
-- Returns {id, queue, ...}
local stays, served = {}, {}
for i = 3, 2 + tonumber(ARGV[2]) do stays[ARGV[i]] = true end
for i = 3 + tonumber(ARGV[2]), #ARGV do served[ARGV[i]] = true end
local moved = {}
for _, id in ipairs(redis.call('ZRANGE', KEY.chained, 0, tonumber(ARGV[1]) - 1)) do
  local record = record_of(id)
  if record.status ~= 'queued' then
    redis.call('ZREM', KEY.chained, id)
  else
    -- Behind the others: what cannot move hides nobody.
    redis.call('ZADD', KEY.chained, integer(now_ms()), id)
    if not stays[record.queue] and not served[record.queue] and not redis.call('ZSCORE', KEY.due, id) then
      for queue in string.gmatch(record.chain, '%S+') do
        if served[queue] then
          unqueue(record)
          record.queue = queue
          redis.call('HSET', KEY.generation .. id, 'queue', queue)
          enqueue(record, true)
          moved[#moved + 1] = id
          moved[#moved + 1] = queue
          break
        end
      end
    end
  end
end
return moved
