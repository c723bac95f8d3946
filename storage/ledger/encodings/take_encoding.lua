-- Takes what has waited longest to be encoded, of the first of these models that has something. What its worker no longer holds is
-- passed over.
-- ARGV: 1 region, 2... models
-- Returns {id, token, tenant, model, submission} | false
for i = 2, #ARGV do
  local model = ARGV[i]
  while true do
    local popped = redis.call('ZPOPMIN', KEY.encodings .. ARGV[1] .. ':' .. model)
    if not popped[1] then break end
    local id, token = string.match(popped[1], '^(.+)/(%d+)$')
    local record = record_of(id)
    if record.status == 'processing' and record.token == token then
      return { id, token, record.tenant, model, record.submission or record.edit or '' }
    end
  end
end
return false
