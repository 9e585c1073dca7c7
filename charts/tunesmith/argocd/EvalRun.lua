-- What Argo CD shows of an EvalRun. Every message is a sentence of its conditions.

-- A condition, unless it is about an older spec.
local function condition(name)
  for _, each in ipairs((obj.status or {}).conditions or {}) do
    if each.type == name and (each.observedGeneration or 0) >= (obj.metadata.generation or 0) then
      return each
    end
  end
  return {}
end

local succeeded, passed, stalled = condition("Succeeded"), condition("Passed"), condition("Stalled")

-- No result will come, or somebody has to mend something.
if stalled.status == "True" then
  return {status = "Degraded", message = stalled.message}
end
if passed.status == "True" then
  return {status = "Healthy", message = passed.message}
end
if succeeded.status == "True" then
  -- Measured as it was asked to, without a gate.
  if passed.reason == "NothingCompared" then
    return {status = "Healthy", message = succeeded.message}
  end
  -- A gate does not hold, or is in doubt.
  return {status = "Degraded", message = passed.message}
end
-- Nothing is wrong, but Kueue has the next word.
if succeeded.reason == "Queued" then
  return {status = "Suspended", message = succeeded.message}
end
return {status = "Progressing", message = succeeded.message or "The operator has not seen this yet."}
