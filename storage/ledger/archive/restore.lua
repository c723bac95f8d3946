#!lua
-- A request's records come back from the object store, to be changed: those that are archived and not here. A full store refuses it.
-- ARGV: 1 tenant, 2 JSON {inputs?, inputs_until_ms?, uses, records: [{record, results_until_ms?, erase_ms?, until_ms}]}, 3 bytes
--       of records that the tenant may have here or ''
-- Returns {'restored', how many are here now} | {'heavy', bytes}
local asked = cjson.decode(ARGV[2])
local at, restored, here = now_ms(), 0, 0
local refused = too_heavy(ARGV[1], 0, tonumber(ARGV[3]))
if refused then return refused end

for _, one in ipairs(asked.records) do
  local record = one.record
  local entry = record.tenant == ARGV[1] and archive_entry_of(record)
  if redis.call('HGET', KEY.generation .. record.id, 'tenant') == ARGV[1] then
    -- Somebody else was quicker.
    here = here + 1
  -- What was read may be older than what lies there now.
  elseif entry and archived_until(entry, one.until_ms) then
    local fields = {}
    for name, value in pairs(record) do
      fields[#fields + 1], fields[#fields + 2] = name, value
    end
    redis.call('HSET', KEY.generation .. record.id, unpack(fields))
    redis.call('PEXPIREAT', KEY.generation .. record.id, integer(math.max(one.until_ms, at + DAY_MS)))
    redis.call('ZREM', KEY.archive .. ARGV[1], entry)
    redis.call('ZADD', KEY.history .. ARGV[1], record.sequence, record.id)
    redis.call('EXPIRE', KEY.history .. ARGV[1], LIFE.history)
    redis.call('ZADD', KEY.archiving, integer(at), record.id)
    if one.results_until_ms then redis.call('ZADD', KEY.expiring, integer(one.results_until_ms), record.results) end
    if one.erase_ms then redis.call('ZADD', KEY.erasing, integer(one.erase_ms), record.id) end
    counted_bytes(record, 1)
    restored = restored + 1
  end
end
if restored > 0 and asked.inputs then
  redis.call('SET', KEY.input_uses .. asked.inputs, asked.uses, 'EX', LIFE.waiting)
  if asked.inputs_until_ms then redis.call('ZADD', KEY.expiring, integer(asked.inputs_until_ms), asked.inputs) end
end
return { 'restored', restored + here }
