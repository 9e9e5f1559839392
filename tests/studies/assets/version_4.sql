-- A study database of version 4, as `sqlite3 studies.db .dump` writes it: made by `studies run` of dlcore 0.1.0, Optuna 5.0.0.
BEGIN TRANSACTION;
CREATE TABLE alembic_version ( version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num) );
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE dlcore_cohorts (
            study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, first_number INTEGER NOT NULL, n_trials INTEGER NOT NULL,
            claimed_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (study_id, cohort));
INSERT INTO "dlcore_cohorts" VALUES(1,0,0,3,1.79582509336306095121e+09);
INSERT INTO "dlcore_cohorts" VALUES(1,1,3,2,1.79582509548528695105e+09);
CREATE TABLE dlcore_curves (
            trial_id INTEGER NOT NULL REFERENCES trials (trial_id) ON DELETE CASCADE, epoch INTEGER NOT NULL,
            train_loss DOUBLE PRECISION, val_loss DOUBLE PRECISION, val_metric DOUBLE PRECISION,
            learning_rate DOUBLE PRECISION NOT NULL, finished_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (trial_id, epoch));
INSERT INTO "dlcore_curves" VALUES(1,1,1.0415024138846487034e+00,6.43719077110290527343e-01,8.05555555555555580227e-01,0.0745304733733469,1.79582509343057870865e+09);
INSERT INTO "dlcore_curves" VALUES(1,2,4.56171265188253072242e-01,3.68593871593475341796e-01,9.44444444444444419772e-01,0.0745304733733469,1.7958250954300889969e+09);
INSERT INTO "dlcore_curves" VALUES(1,3,2.42298343271579369462e-01,2.57385849952697753906e-01,9.44444444444444419772e-01,0.0745304733733469,1.79582509543797373772e+09);
INSERT INTO "dlcore_curves" VALUES(2,1,1.09505321619645590303e+00,1.08719050884246826171e+00,3.33333333333333314829e-01,5.12824770960807752029e-02,1.79582509541134190556e+09);
INSERT INTO "dlcore_curves" VALUES(2,2,1.08104003150508076736e+00,1.07393479347229,5.8333333333333337034e-01,5.12824770960807752029e-02,1.79582509543124341959e+09);
INSERT INTO "dlcore_curves" VALUES(3,1,1.33692730147883587221e+00,1.3245372772216796875e+00,2.77777777777777762358e-02,4.33943756560471131239e-03,1.79582509343045020099e+09);
INSERT INTO "dlcore_curves" VALUES(4,1,1.10062376058326560901e+00,1.10032224655151367187e+00,3.05555555555555580227e-01,2.3200198555469856744e-03,1.7958250955265033245e+09);
INSERT INTO "dlcore_curves" VALUES(5,1,1.2240992064745921386e+00,1.08457422256469726562e+00,0.5,1.40388281031020908246e-03,1.79582509552698516841e+09);
INSERT INTO "dlcore_curves" VALUES(5,2,1.16798447438006114396e+00,1.01921665668487548828e+00,5.55555555555555580227e-01,1.40388281031020908246e-03,1.79582509553353142743e+09);
INSERT INTO "dlcore_curves" VALUES(5,3,1.09133804969067838008e+00,0.953126072883606,5.8333333333333337034e-01,1.40388281031020908246e-03,1.79582509572747588155e+09);
CREATE TABLE dlcore_leases (
            token TEXT PRIMARY KEY, study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, machine TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
            process_started TEXT NOT NULL, claimer TEXT NOT NULL, claimed_at DOUBLE PRECISION NOT NULL,
            expires_at DOUBLE PRECISION NOT NULL, UNIQUE (study_id, cohort));
CREATE TABLE dlcore_migrations (version INTEGER PRIMARY KEY, applied_at DOUBLE PRECISION NOT NULL);
INSERT INTO "dlcore_migrations" VALUES(1,1.79582509299817514418e+09);
INSERT INTO "dlcore_migrations" VALUES(2,1.79582509300174617767e+09);
INSERT INTO "dlcore_migrations" VALUES(3,1.79582509300356674194e+09);
INSERT INTO "dlcore_migrations" VALUES(4,1.79582509300452351566e+09);
CREATE TABLE dlcore_results (
            trial_id INTEGER PRIMARY KEY REFERENCES trials (trial_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, hyperparameters_json TEXT NOT NULL, n_parameters BIGINT NOT NULL,
            reason TEXT, best_epoch INTEGER, best_val_loss DOUBLE PRECISION,
            started_at DOUBLE PRECISION, finished_at DOUBLE PRECISION,
            duration_s DOUBLE PRECISION, samples_per_s DOUBLE PRECISION, engine TEXT, population_size INTEGER,
            device TEXT, peak_memory_bytes BIGINT, searched_json TEXT, token TEXT, sha256 TEXT);
INSERT INTO "dlcore_results" VALUES(1,0,'{"depth": 2, "width": 76, "funnel": 1.0, "activation": "relu", "initialization": "orthogonal", "dropout": 0.0, "optimizer": "sgd", "learning_rate": 0.0745304733733469, "momentum": 0.4619769282185093, "nesterov": false, "weight_decay": 0.0, "batch_size": 32, "schedule": "constant", "warmup_epochs": 0, "clip_norm": false, "preprocess": "standard"}',7147,NULL,3,2.57385849952697753906e-01,1.79582509341019034383e+09,1.79582509543797373772e+09,1.85613729995566245634e-02,1.71323533020750182914e+04,'population',3,'Intel(R) Xeon(R) Processor',489930752,'["depth", "width", "activation", "initialization", "learning_rate", "momentum"]','64e871e8f9a6421a99f44202544bc075','ffdb8a61775c977c38f503ccdc7b0741d8666edc50af1bf18eca3d89badf1e50');
INSERT INTO "dlcore_results" VALUES(2,0,'{"depth": 4, "width": 171, "funnel": 1.0, "activation": "relu", "initialization": "default", "dropout": 0.0, "optimizer": "sgd", "learning_rate": 0.051282477096080775, "momentum": 0.5210441799500741, "nesterov": false, "weight_decay": 0.0, "batch_size": 32, "schedule": "constant", "warmup_epochs": 0, "clip_norm": false, "preprocess": "standard"}',91146,'not among the best 1 of 2 at epoch 2',2,1.07393479347229,1.79582509341019034383e+09,1.79582509543124341959e+09,7.74584500004493747837e-03,2.73695122996613135913e+04,'population',3,'Intel(R) Xeon(R) Processor',489930752,'["depth", "width", "activation", "initialization", "learning_rate", "momentum"]','64e871e8f9a6421a99f44202544bc075','740e3435a5cf8b8b2c7cbb71db65e7a74b684387a01e1b4ce31b5bb02b1319d3');
INSERT INTO "dlcore_results" VALUES(3,0,'{"depth": 1, "width": 27, "funnel": 1.0, "activation": "relu", "initialization": "default", "dropout": 0.0, "optimizer": "sgd", "learning_rate": 0.004339437565604711, "momentum": 0.4698378492587209, "nesterov": false, "weight_decay": 0.0, "batch_size": 32, "schedule": "constant", "warmup_epochs": 0, "clip_norm": false, "preprocess": "standard"}',462,'not among the best 2 of 3 at epoch 1',1,1.3245372772216796875e+00,1.79582509341019034383e+09,1.79582509343045020099e+09,1.13376330000392044894e-02,9349.39418127518,'population',3,'Intel(R) Xeon(R) Processor',489930752,'["depth", "width", "activation", "initialization", "learning_rate", "momentum"]','64e871e8f9a6421a99f44202544bc075','8691001ecb8dd2916512dce9c1b34335aa378eacb92e86e3acdde2e8cda56a86');
INSERT INTO "dlcore_results" VALUES(4,1,'{"depth": 3, "width": 85, "funnel": 1.0, "activation": "gelu", "initialization": "default", "dropout": 0.0, "optimizer": "sgd", "learning_rate": 0.0023200198555469857, "momentum": 0.7734069097996706, "nesterov": false, "weight_decay": 0.0, "batch_size": 32, "schedule": "constant", "warmup_epochs": 0, "clip_norm": false, "preprocess": "standard"}',16068,'not among the best 1 of 2 at epoch 1',1,1.10032224655151367187e+00,1.79582509551078653336e+09,1.7958250955265033245e+09,1.18639639999855717178e-02,8.9346191542834167195e+03,'population',2,'Intel(R) Xeon(R) Processor',490323968,'["depth", "width", "activation", "initialization", "learning_rate", "momentum"]','2f9c80072c114b46b7094a13ae9c2ac6','3e30b949fc2f77e71d8a266c6a0b3dd74b23312a4c368869c414dcba9266db03');
INSERT INTO "dlcore_results" VALUES(5,1,'{"depth": 2, "width": 18, "funnel": 1.0, "activation": "tanh", "initialization": "orthogonal", "dropout": 0.0, "optimizer": "sgd", "learning_rate": 0.001403882810310209, "momentum": 0.7606672085450371, "nesterov": false, "weight_decay": 0.0, "batch_size": 32, "schedule": "constant", "warmup_epochs": 0, "clip_norm": false, "preprocess": "standard"}',651,NULL,3,0.953126072883606,1.79582509551078653336e+09,1.79582509572747588155e+09,9.89906699987841420806e-03,3.21242395878223542244e+04,'population',2,'Intel(R) Xeon(R) Processor',490323968,'["depth", "width", "activation", "initialization", "learning_rate", "momentum"]','2f9c80072c114b46b7094a13ae9c2ac6','65428697d49db6813f309ac4bca2a33c9040ff9ef999721bae9253ba2d9143e7');
CREATE TABLE dlcore_studies (
            study_id INTEGER PRIMARY KEY REFERENCES studies (study_id) ON DELETE CASCADE,
            uuid TEXT NOT NULL UNIQUE, created_at DOUBLE PRECISION NOT NULL, spec_json TEXT NOT NULL,
            objectives_json TEXT NOT NULL, task TEXT NOT NULL, curve_metric TEXT NOT NULL,
            cohort_size INTEGER NOT NULL, n_features INTEGER NOT NULL, n_outputs INTEGER NOT NULL,
            data_name TEXT NOT NULL, data_fingerprint TEXT NOT NULL, environment_json TEXT NOT NULL,
            spent_s DOUBLE PRECISION NOT NULL, tracking_uri TEXT, experiment_id TEXT, sha256 TEXT);
INSERT INTO "dlcore_studies" VALUES(1,'368e313e0d48484fb5947cd865769560',1.79582509318856453897e+09,'{"objective": null, "study": "wine", "seed": 1, "budget": {"trials": 5, "seconds": null}, "search": {"sampler": "tpe", "halving": {"first_rung": 1, "reduction_factor": 2}, "pruner": null, "prune_below": null, "prune_above": null, "cohort": 3, "max_parameters": null}, "data": {"source": "sklearn:wine", "path": null, "target": [], "task": "auto", "drop": [], "kinds": {}, "split": {"column": null, "group": null, "time": null, "folds": null}, "val_fraction": 0.2, "test_fraction": 0.2, "preprocess": "standard", "missing_indicators": true, "max_categories": 32, "min_category_rows": 10, "high_cardinality": 64, "target_transform": "none"}, "training": {"epochs": 3, "batch_size": 32, "patience": 16, "optimizer": "sgd", "schedule": "constant", "warmup_epochs": 0, "weight_decay": 0.0, "dropout": 0.0, "nesterov": false, "clip_norm": false, "device": "auto", "engine": "population", "precision": "fp32"}, "final": {"candidates": 2, "seeds": 2, "baselines": true, "ensemble": false}, "search_space": {"depth": {"low": 1, "high": 4, "log": false, "step": null}, "width": {"low": 16, "high": 256, "log": true, "step": null}, "activation": ["relu", "leaky_relu", "tanh", "gelu"], "initialization": ["default", "xavier_uniform", "kaiming_normal", "orthogonal"], "learning_rate": {"low": 0.001, "high": 0.5, "log": true, "step": null}, "momentum": {"low": 0.0, "high": 0.95, "log": false, "step": null}}}','[{"metric": "accuracy", "direction": "maximize"}]','multiclass','accuracy',3,13,3,'wine','b3fef7a49cc3cfef89a2d6a3c3a72e3d974ce8d78678e1acee6da22a932de6a9','{"python": "3.11.7", "dlcore": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "pandas": "3.1.1", "scikit-learn": "1.9.1", "optuna": "5.0.0", "mlflow": "3.17.2", "sqlalchemy": "2.1.9", "platform": "Linux-6.18.44-fc-v657-x86_64-with-glibc2.36", "processor": "Intel(R) Xeon(R) Processor", "threads": "2", "device": "Intel(R) Xeon(R) Processor", "capability": "AVX512", "git_commit": "5f3941a3d4cc4149c7019013bc28b036b92aff16-dirty"}',2.25103097599958346108e+00,NULL,NULL,'0ce31e41ec482cee0bb4f5828b03127cfe4b4b6af1064074cc7669388d7282b0');
CREATE TABLE dlcore_winners (
            study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            trial_id INTEGER NOT NULL REFERENCES trials (trial_id) ON DELETE CASCADE,
            created_at DOUBLE PRECISION NOT NULL, n_finished INTEGER NOT NULL, val_metrics_json TEXT NOT NULL,
            test_metrics_json TEXT NOT NULL, export_dir TEXT NOT NULL, onnx_sha256 TEXT NOT NULL, sha256 TEXT, final_json TEXT,
            PRIMARY KEY (study_id, trial_id));
INSERT INTO "dlcore_winners" VALUES(1,1,1795825096.64437,5,'{"loss": 0.25738584995269775, "accuracy": 0.9444444444444444, "balanced_accuracy": 0.942857142857143, "f1": 0.9453132832080201, "roc_auc": 0.9920741295741297, "log_loss": 0.25738584995269775}','{"loss": 0.2756114602088928, "accuracy": 0.8888888888888888, "balanced_accuracy": 0.8928571428571429, "f1": 0.894949494949495, "roc_auc": 0.9900342712842712, "log_loss": 0.2756114602088928}','/home/ann/mlruns/exports/wine','069af5684d4d86eebbf19d41e81003a2ff0832a6b74abbec3f016c6ce186e5eb','29dafefb1a3b3a85faf8a710eebc939fc0e00c1aa0cade0257ed4a50d6819813','{"asked": {"candidates": 2, "seeds": 2, "baselines": true, "ensemble": false}, "finalists": [{"number": 0, "val": [{"loss": 0.21174615621566772, "accuracy": 0.9166666666666666, "balanced_accuracy": 0.9095238095238095, "f1": 0.91514687100894, "roc_auc": 0.9978354978354979, "log_loss": 0.21174615621566772}, {"loss": 0.23446494340896606, "accuracy": 0.9722222222222222, "balanced_accuracy": 0.9666666666666667, "f1": 0.9709618874773139, "roc_auc": 0.9965534465534466, "log_loss": 0.23446494340896606}]}, {"number": 4, "val": [{"loss": 1.1582236289978027, "accuracy": 0.3888888888888889, "balanced_accuracy": 0.3682539682539682, "f1": 0.3666666666666667, "roc_auc": 0.6028503903503903, "log_loss": 1.1582236289978027}, {"loss": 0.6377606987953186, "accuracy": 0.8055555555555556, "balanced_accuracy": 0.8063492063492065, "f1": 0.8024242424242424, "roc_auc": 0.9000011562511562, "log_loss": 0.6377606987953186}]}], "test": [{"loss": 0.18119889497756958, "accuracy": 0.9722222222222222, "balanced_accuracy": 0.9761904761904763, "f1": 0.974320987654321, "roc_auc": 0.9977603415103414, "log_loss": 0.18119889497756958}, {"loss": 0.19994282722473145, "accuracy": 0.9722222222222222, "balanced_accuracy": 0.9722222222222222, "f1": 0.9740129935032483, "roc_auc": 1.0, "log_loss": 0.19994282722473145}], "rivals": [{"name": "gradient boosting", "val": {"loss": 0.07381980081058678, "accuracy": 0.9722222222222222, "balanced_accuracy": 0.9761904761904763, "f1": 0.974320987654321, "roc_auc": 1.0, "log_loss": 0.07381980081058678}, "test": {"loss": 0.10051441120219375, "accuracy": 0.9444444444444444, "balanced_accuracy": 0.9484126984126985, "f1": 0.9484126984126985, "roc_auc": 0.9977603415103414, "log_loss": 0.10051441120219375}, "remark": ""}, {"name": "logistic regression", "val": {"loss": 0.0978538005986962, "accuracy": 0.9722222222222222, "balanced_accuracy": 0.9666666666666667, "f1": 0.9709618874773139, "roc_auc": 0.9989177489177489, "log_loss": 0.0978538005986962}, "test": {"loss": 0.089399038091715, "accuracy": 0.9444444444444444, "balanced_accuracy": 0.9484126984126985, "f1": 0.9484126984126985, "roc_auc": 0.9977603415103414, "log_loss": 0.089399038091715}, "remark": ""}, {"name": "majority", "val": {"loss": 1.0900217757972095, "accuracy": 0.3888888888888889, "balanced_accuracy": 0.3333333333333333, "f1": 0.18666666666666668, "roc_auc": 0.5, "log_loss": 1.0900217757972095}, "test": {"loss": 1.0900217757972095, "accuracy": 0.3888888888888889, "balanced_accuracy": 0.3333333333333333, "f1": 0.18666666666666668, "roc_auc": 0.5, "log_loss": 1.0900217757972095}, "remark": ""}], "ensemble": null}');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'wine');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,1,8.05555555555555580227e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,1,2,9.44444444444444419772e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,2,1,3.33333333333333314829e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,2,2,5.8333333333333337034e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,3,1,2.77777777777777762358e-02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,4,1,3.05555555555555580227e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,5,1,0.5,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,5,2,5.55555555555555580227e-01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'depth',2.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 4}}');
INSERT INTO "trial_params" VALUES(2,1,'width',76.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 16, "high": 256}}');
INSERT INTO "trial_params" VALUES(3,1,'activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "leaky_relu", "tanh", "gelu"]}}');
INSERT INTO "trial_params" VALUES(4,1,'initialization',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["default", "xavier_uniform", "kaiming_normal", "orthogonal"]}}');
INSERT INTO "trial_params" VALUES(5,1,'learning_rate',0.0745304733733469,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(6,1,'momentum',4.61976928218509275136e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.95, "log": false}}');
INSERT INTO "trial_params" VALUES(7,2,'depth',4.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 4}}');
INSERT INTO "trial_params" VALUES(8,2,'width',171.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 16, "high": 256}}');
INSERT INTO "trial_params" VALUES(9,2,'activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "leaky_relu", "tanh", "gelu"]}}');
INSERT INTO "trial_params" VALUES(10,2,'initialization',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["default", "xavier_uniform", "kaiming_normal", "orthogonal"]}}');
INSERT INTO "trial_params" VALUES(11,2,'learning_rate',5.12824770960807752029e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(12,2,'momentum',5.21044179950074126672e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.95, "log": false}}');
INSERT INTO "trial_params" VALUES(13,3,'depth',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 4}}');
INSERT INTO "trial_params" VALUES(14,3,'width',27.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 16, "high": 256}}');
INSERT INTO "trial_params" VALUES(15,3,'activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "leaky_relu", "tanh", "gelu"]}}');
INSERT INTO "trial_params" VALUES(16,3,'initialization',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["default", "xavier_uniform", "kaiming_normal", "orthogonal"]}}');
INSERT INTO "trial_params" VALUES(17,3,'learning_rate',4.33943756560471131239e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(18,3,'momentum',4.69837849258720907652e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.95, "log": false}}');
INSERT INTO "trial_params" VALUES(19,4,'depth',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 4}}');
INSERT INTO "trial_params" VALUES(20,4,'width',85.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 16, "high": 256}}');
INSERT INTO "trial_params" VALUES(21,4,'activation',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "leaky_relu", "tanh", "gelu"]}}');
INSERT INTO "trial_params" VALUES(22,4,'initialization',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["default", "xavier_uniform", "kaiming_normal", "orthogonal"]}}');
INSERT INTO "trial_params" VALUES(23,4,'learning_rate',2.3200198555469856744e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(24,4,'momentum',7.73406909799670638783e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.95, "log": false}}');
INSERT INTO "trial_params" VALUES(25,5,'depth',2.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 4}}');
INSERT INTO "trial_params" VALUES(26,5,'width',18.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 16, "high": 256}}');
INSERT INTO "trial_params" VALUES(27,5,'activation',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "leaky_relu", "tanh", "gelu"]}}');
INSERT INTO "trial_params" VALUES(28,5,'initialization',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["default", "xavier_uniform", "kaiming_normal", "orthogonal"]}}');
INSERT INTO "trial_params" VALUES(29,5,'learning_rate',1.40388281031020908246e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(30,5,'momentum',7.60667208545037110134e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.95, "log": false}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'n_parameters','7147');
INSERT INTO "trial_user_attributes" VALUES(2,1,'epochs','3');
INSERT INTO "trial_user_attributes" VALUES(3,1,'cohort','0');
INSERT INTO "trial_user_attributes" VALUES(4,1,'best_epoch','3');
INSERT INTO "trial_user_attributes" VALUES(5,2,'n_parameters','91146');
INSERT INTO "trial_user_attributes" VALUES(6,2,'epochs','2');
INSERT INTO "trial_user_attributes" VALUES(7,2,'cohort','0');
INSERT INTO "trial_user_attributes" VALUES(8,2,'best_epoch','2');
INSERT INTO "trial_user_attributes" VALUES(9,2,'reason','"not among the best 1 of 2 at epoch 2"');
INSERT INTO "trial_user_attributes" VALUES(10,3,'n_parameters','462');
INSERT INTO "trial_user_attributes" VALUES(11,3,'epochs','1');
INSERT INTO "trial_user_attributes" VALUES(12,3,'cohort','0');
INSERT INTO "trial_user_attributes" VALUES(13,3,'best_epoch','1');
INSERT INTO "trial_user_attributes" VALUES(14,3,'reason','"not among the best 2 of 3 at epoch 1"');
INSERT INTO "trial_user_attributes" VALUES(15,4,'n_parameters','16068');
INSERT INTO "trial_user_attributes" VALUES(16,4,'epochs','1');
INSERT INTO "trial_user_attributes" VALUES(17,4,'cohort','1');
INSERT INTO "trial_user_attributes" VALUES(18,4,'best_epoch','1');
INSERT INTO "trial_user_attributes" VALUES(19,4,'reason','"not among the best 1 of 2 at epoch 1"');
INSERT INTO "trial_user_attributes" VALUES(20,5,'n_parameters','651');
INSERT INTO "trial_user_attributes" VALUES(21,5,'epochs','3');
INSERT INTO "trial_user_attributes" VALUES(22,5,'cohort','1');
INSERT INTO "trial_user_attributes" VALUES(23,5,'best_epoch','3');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,9.44444444444444419772e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,5.8333333333333337034e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,2.77777777777777762358e-02,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,3.05555555555555580227e-01,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,5.8333333333333337034e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-28 00:18:13.363061','2026-11-28 00:18:15.441933');
INSERT INTO "trials" VALUES(2,1,1,'PRUNED','2026-11-28 00:18:13.363061','2026-11-28 00:18:15.441933');
INSERT INTO "trials" VALUES(3,2,1,'PRUNED','2026-11-28 00:18:13.363061','2026-11-28 00:18:15.441933');
INSERT INTO "trials" VALUES(4,3,1,'PRUNED','2026-11-28 00:18:15.485287','2026-11-28 00:18:15.730833');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-28 00:18:15.485287','2026-11-28 00:18:15.730833');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
CREATE VIEW dlcore_trials AS SELECT
        s.study_name AS study, t.number AS number, t.state AS state,
        CASE CAST(v.value_type AS TEXT) WHEN 'INF_POS' THEN 9e999 WHEN 'INF_NEG' THEN -9e999
            ELSE v.value END AS value,
        r.n_parameters AS n_parameters, r.duration_s AS seconds, json_extract(r.hyperparameters_json, '$.depth') AS depth, json_extract(r.hyperparameters_json, '$.width') AS width, json_extract(r.hyperparameters_json, '$.activation') AS activation, json_extract(r.hyperparameters_json, '$.learning_rate') AS learning_rate, json_extract(r.hyperparameters_json, '$.momentum') AS momentum, json_extract(r.hyperparameters_json, '$.initialization') AS initialization,
        json_remove(r.hyperparameters_json, '$.depth', '$.width', '$.activation', '$.learning_rate', '$.momentum', '$.initialization') AS other_hyperparameters, r.cohort AS cohort, r.best_epoch AS best_epoch, r.reason AS reason
        FROM trials t JOIN studies s ON s.study_id = t.study_id JOIN dlcore_results r ON r.trial_id = t.trial_id
        LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0;
COMMIT;
