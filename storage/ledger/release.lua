-- processing -> queued without blame: a worker that is being stopped hands its work back, and the attempt is not counted.
-- ARGV: 1 id, 2 token
-- Returns 'queued' | 'lost'
local record = record_of(ARGV[1])
if record.status ~= 'processing' or record.token ~= ARGV[2] then return 'lost' end
record.attempts = redis.call('HINCRBY', KEY.generation .. record.id, 'attempts', -1)
requeue(record, 0)
return 'queued'
