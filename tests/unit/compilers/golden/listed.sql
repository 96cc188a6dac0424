SELECT
  "__row",
  list_sum("__list0") AS "__result_0",
  list_avg("__list0") AS "__result_1",
  list_min("__list0") AS "__result_2",
  list_sum("__list1") AS "__result_3",
  list_avg("__list2") AS "__result_4",
  list_min("__list3") AS "__result_5",
  list_sum("__list4") AS "__result_6",
  list_avg("__list5") AS "__result_7",
  list_min("__list6") AS "__result_8",
  list_sum("__list7") AS "__result_9",
  list_avg("__list8") AS "__result_10",
  list_min("__list9") AS "__result_11"
FROM (
SELECT
  "__row",
  list("__value_0") FILTER ("__value_0" IS NOT NULL) OVER w0 AS "__list0",
  list("__value_1"::HUGEINT) FILTER ("__value_1" IS NOT NULL) OVER w0 AS "__list1",
  list("__value_1"::DOUBLE) FILTER ("__value_1" IS NOT NULL) OVER w0 AS "__list2",
  list("__value_1") FILTER ("__value_1" IS NOT NULL) OVER w0 AS "__list3",
  list("__value_2"::DECIMAL(38, 2)) FILTER ("__value_2" IS NOT NULL) OVER w0 AS "__list4",
  list("__value_2"::DOUBLE) FILTER ("__value_2" IS NOT NULL) OVER w0 AS "__list5",
  list("__value_2") FILTER ("__value_2" IS NOT NULL) OVER w0 AS "__list6",
  list("__value_3"::HUGEINT) FILTER ("__value_3" IS NOT NULL) OVER w0 AS "__list7",
  list("__value_3"::DOUBLE) FILTER ("__value_3" IS NOT NULL) OVER w0 AS "__list8",
  list("__value_3") FILTER ("__value_3" IS NOT NULL) OVER w0 AS "__list9"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 3600000000 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
