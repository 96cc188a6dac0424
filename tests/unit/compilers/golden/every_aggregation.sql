SELECT * FROM (
SELECT
  "__row",
  count("__value_0") OVER w0 AS "__result_0",
  count("__value_0") OVER w1 AS "__result_1",
  sum("__value_0") OVER w0 AS "__result_2",
  sum("__value_0") OVER w1 AS "__result_3",
  avg("__value_0") OVER w0 AS "__result_4",
  avg("__value_0") OVER w1 AS "__result_5",
  min("__value_0") OVER w0 AS "__result_6",
  min("__value_0") OVER w1 AS "__result_7",
  max("__value_0") OVER w0 AS "__result_8",
  max("__value_0") OVER w1 AS "__result_9",
  stddev_samp("__value_0") OVER w0 AS "__result_10",
  stddev_samp("__value_0") OVER w1 AS "__result_11",
  median("__value_0") OVER w0 AS "__result_12",
  median("__value_0") OVER w1 AS "__result_13",
  var_samp("__value_0") OVER w0 AS "__result_14",
  var_samp("__value_0") OVER w1 AS "__result_15",
  quantile_cont("__value_0", 0.9) OVER w0 AS "__result_16",
  quantile_cont("__value_0", 0.9) OVER w1 AS "__result_17",
  quantile_cont("__value_0", 0.5) OVER w0 AS "__result_18",
  quantile_cont("__value_0", 0.5) OVER w1 AS "__result_19",
  quantile_cont("__value_0", 0.999) OVER w0 AS "__result_20",
  quantile_cont("__value_0", 0.999) OVER w1 AS "__result_21"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 604800000000 PRECEDING AND 0 PRECEDING),
  w1 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 2592000000000 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
