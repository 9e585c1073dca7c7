-- What Argo CD shows of a FineTuneJob. Every message is a sentence of its conditions.

-- A condition, unless it is about an older spec.
local function condition(name)
  for _, each in ipairs((obj.status or {}).conditions or {}) do
    if each.type == name and (each.observedGeneration or 0) >= (obj.metadata.generation or 0) then
      return each
    end
  end
  return {}
end

local succeeded, ready = condition("Succeeded"), condition("Ready")
local stalled, suspended = condition("Stalled"), condition("Suspended")

-- Rejected, failed, or somebody has to mend something.
if stalled.status == "True" then
  return {status = "Degraded", message = stalled.message}
end
if ready.status == "True" then
  return {status = "Healthy", message = ready.message}
end
if suspended.status == "True" then
  return {status = "Suspended", message = suspended.message}
end
-- Nothing is wrong, but others have the next word: Kueue, or a person.
if succeeded.reason == "Queued" or succeeded.reason == "AwaitingReview" then
  return {status = "Suspended", message = succeeded.message}
end
-- Trained, and not judged yet.
if succeeded.status == "True" then
  return {status = "Progressing", message = ready.message}
end
return {status = "Progressing", message = succeeded.message or "The operator has not seen this yet."}
