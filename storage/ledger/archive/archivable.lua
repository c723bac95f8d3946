-- Requests that are over for long enough to leave for the object store: all of a request, or none.
-- What is going to be written there is listed to be deleted in a while: nobody else moves it until then, `archived` takes that
-- back, and nothing is left behind should its writer die.
-- ARGV: 1 ms since the end, 2 ms that they wait for others to go with, 3 how many records go at a time, 4 ms that moving them may
--       take, 5... keys of objects that will tell what goes when
-- Returns {{tenant, inputs or '', when those go or '', how many use them, {{stamp, when its result goes or '', when it is erased
--   or '', record as a flat list}...}, until when it is held}...}
local HOUR_MS = 3600000
local MOST_BYTES = 4000000
local at, most, held = now_ms(), tonumber(ARGV[3]), integer(now_ms() + tonumber(ARGV[4]))
local ready = redis.call('ZRANGEBYSCORE', KEY.archiving, '-inf', integer(at - tonumber(ARGV[1])), 'WITHSCORES', 'LIMIT', 0, most)
if #ready == 0 then return {} end
if #ready < 2 * most and tonumber(ready[2]) > at - tonumber(ARGV[1]) - tonumber(ARGV[2]) then return {} end

-- The records of a request, or when to look at it again; nothing when never.
local function gathered(first)
  local records, later = {}, nil
  for id in string.gmatch(first.siblings or first.id, '%S+') do
    local record = id == first.id and first or record_of(id)
    if record.id then
      -- The last one that ends brings all of them here.
      if not record.completed_ms then return nil end
      if redis.call('ZSCORE', KEY.expiring, archived_at(record)) then return {} end
      -- Soon erased.
      local erased = tonumber(redis.call('ZSCORE', KEY.erasing, id))
      if erased and erased < at + HOUR_MS then return nil end
      -- An operator looks at it.
      local parked = tonumber(redis.call('ZSCORE', KEY.parked, id))
      local looked_at = parked and parked + LIFE.parked * 1000 - DAY_MS
      if looked_at and looked_at > at then later = looked_at end
      records[#records + 1] = record
    end
  end
  return records, later
end

local requests, seen, bytes = {}, {}, 0
for i = 1, #ready, 2 do
  local first = record_of(ready[i])
  if bytes > MOST_BYTES then break end
  if not first.id or not first.completed_ms then
    redis.call('ZREM', KEY.archiving, ready[i])
  elseif not seen[first.id] then
    local records, later = gathered(first)
    if later then
      redis.call('ZADD', KEY.archiving, integer(later - tonumber(ARGV[1])), first.id)
    elseif not records then
      redis.call('ZREM', KEY.archiving, first.id)
    elseif #records > 0 then
      local told = {}
      for _, record in ipairs(records) do
        seen[record.id] = true
        local flat = {}
        for name, value in pairs(record) do
          flat[#flat + 1], flat[#flat + 2] = name, value
          bytes = bytes + #value
        end
        told[#told + 1] = {
          stamp(record), redis.call('ZSCORE', KEY.expiring, record.results) or '',
          redis.call('ZSCORE', KEY.erasing, record.id) or '', flat,
        }
        redis.call('ZADD', KEY.expiring, held, archived_at(record))
        -- Others are looked at meanwhile.
        redis.call('ZADD', KEY.archiving, 'XX', integer(tonumber(held) - tonumber(ARGV[1])), record.id)
      end
      local inputs = first.inputs or ''
      requests[#requests + 1] = {
        first.tenant, inputs, redis.call('ZSCORE', KEY.expiring, inputs) or '',
        tonumber(redis.call('GET', KEY.input_uses .. inputs) or 0), told, held,
      }
    end
  end
end
if #requests > 0 then
  for i = 5, #ARGV do redis.call('ZADD', KEY.expiring, held, ARGV[i]) end
end
return requests
